"""Networks and their parts: Flax Linen modules, channels last.

ResNet 18-152, ResNeXt, Wide ResNet, VGG 11-19, GoogLeNet, Inception v3, MobileNetV2, EfficientNet-Lite0, SqueezeNet,
ConvNeXt T/S/B, ViT Ti/S/B/L, LSTM and GRU over rows or patches, and three small CNNs, with the published shapes; compared
with torch, torchvision or timm on random weights, forward and backward (`tests/parity_errors.md`). Deep ones take
`stochastic_depth=`; auxiliary heads are trained by `classification(network, auxiliary=0.4)`.
"""
