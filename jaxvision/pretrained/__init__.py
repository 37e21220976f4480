"""Weights of other libraries, by strict name maps, into our variables.

- `start.start`: a file as the `start` of an experiment; `run.transfer.from_run` takes another run instead.
- `files.read`: `.safetensors`, `.npz`, PyTorch's `.pth`, Keras' `.h5` and `.weights.h5`, Darknet's `.weights`, frozen `.pb`
  graphs, `.onnx`; a path or an address, with its sha256. Nothing in a file is run. Checkpoints of training scripts are read
  whatever else they hold, whole modules too; of several sets of weights the averaged ones (`inside=` names another), and
  names without what wrappers put before them (`module.`, `model.`).
- Name maps: `torchvision`, `timm`, `keras` for classifiers; `torchvision_detection`, `torchvision_regions`, `detr`, `yolox`,
  `darknet`, `tensorflow_ssd` for detectors; `torchvision_segmentation` for semantic segmenters. Those of torchvision's
  detectors and segmenters, DETR and YOLOX were not yet tried on published files.
- `published.load_published`, `published_task.load_task` of `detectors` and `segmenters`: EfficientNet-Lite0 and SqueezeNet
  1.1, SSD-MobileNetV2 and YOLOv3-tiny, U^2-NetP, fetched from the package registry, with preprocessing and class names.
- `export.torch_safetensors(torchvision.resnet_sources, variables, "ours.safetensors")`: what `load_state_dict` takes.
"""
