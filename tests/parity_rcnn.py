"""What Faster R-CNN, Mask R-CNN and RetinaNet compute from given weights, here and in torchvision, everything in float64.

Only functions that end in `_torch` import torch. The draws of anchors and regions are ours on both sides.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from mask_cases import shapes as drawn
from parity_networks import UNOPTIMISED, random_weights, summary

from jaxvision.nn import resnet
from jaxvision.nn.norm import FrozenBatchNorm
from jaxvision.pretrained import strict, torchvision_detection
from jaxvision.tasks.anchored import by_level
from jaxvision.tasks.faster_rcnn import faster_rcnn, faster_rcnn_fpn
from jaxvision.tasks.mask_rcnn import mask_rcnn, with_mask_head
from jaxvision.tasks.retinanet import retinanet, retinanet_fpn
from jaxvision.tasks.roi_heads import ROIHeads
from jaxvision.tasks.rpn import RPN
from jaxvision.types import Batch, Objects

CLASSES = 5
SEED = 11
HEIGHT, WIDTH = 128, 160
KEY = 5
BOXES = (
    [[10, 20, 70, 62], [12, 22, 68, 60], [90, 30, 158, 126], [0, 80, 30, 120], [64, 64, 75, 78]],
    [[40, 10, 120, 110], [5, 5, 150, 120]],
)
LABELS = ([1, 0, 4, 2, 3], [3, 2])
RPN_SETTINGS = RPN(samples_per_image=64, pre_nms_top_k=(150, 120), post_nms_top_k=(200, 160))
ROI_SETTINGS = ROIHeads(samples_per_image=64, pre_nms_top_k=1000)
LOSSES = {
    "faster_rcnn": {
        "objectness_loss": "loss_objectness",
        "rpn_box_loss": "loss_rpn_box_reg",
        "class_loss": "loss_classifier",
        "box_loss": "loss_box_reg",
    },
    "retinanet": {"class_loss": "classification", "box_loss": "bbox_regression"},
}
LOSSES["mask_rcnn"] = {**LOSSES["faster_rcnn"], "mask_loss": "loss_mask"}
"""Ours and torchvision's names."""


def weights_of(shapes):
    """Random weights under torchvision's names, under which scores spread and boxes stay near their anchors."""
    weights = random_weights(shapes, SEED)
    for name in weights:
        if name.endswith(("bbox_pred.weight", "bbox_reg.weight", "bbox_pred.bias", "bbox_reg.bias")) or name.endswith(
            "bn3.weight"
        ):
            weights[name] = 0.3 * weights[name]
    return weights


def images():
    """Pixels, 0-255, of blurred noise."""
    noise = np.random.RandomState(SEED + 1).uniform(0, 255, (2, HEIGHT // 8, WIDTH // 8, 3))
    return np.repeat(np.repeat(noise, 8, 1), 8, 2)


def batch(rows=6):
    """The images with their objects, padded."""
    boxes, labels, valid = np.zeros((2, rows, 4)), np.zeros((2, rows), np.int32), np.zeros((2, rows), bool)
    for i, own in enumerate(BOXES):
        boxes[i, : len(own)], labels[i, : len(own)], valid[i, : len(own)] = own, LABELS[i], True
    size, index = jnp.tile(jnp.int32([[HEIGHT, WIDTH]]), (2, 1)), jnp.arange(2, dtype=jnp.int32)
    flags = valid, np.zeros_like(valid)
    masks = np.stack([np.concatenate([own, np.zeros((rows - len(own), HEIGHT, WIDTH), bool)]) for own in masks_of()])
    target = Objects(*map(jnp.asarray, (boxes, labels, *flags)), masks=jnp.asarray(masks))
    return Batch(jnp.asarray(images()), size, size, index, index >= 0, target)


def masks_of():
    """Shapes on the canvas, one for each box and stretched to it."""
    found, shapes = [], iter(drawn(sum(map(len, BOXES)), 64, SEED, least=40))
    for own in BOXES:
        masks = np.zeros((len(own), HEIGHT, WIDTH), bool)
        for mask, (x0, y0, x1, y1) in zip(masks, own, strict=True):
            y, x = np.nonzero(shape := next(shapes))
            tight = shape[y.min() : y.max() + 1, x.min() : x.max() + 1]
            rows, columns = ((np.arange(n) + 0.5) / n for n in (y1 - y0, x1 - x0))
            mask[y0:y1, x0:x1] = tight[(rows * tight.shape[0]).astype(int)][:, (columns * tight.shape[1]).astype(int)]
        found.append(masks)
    return found


def backbone(name):
    """A residual network with frozen statistics, in float64."""
    return getattr(resnet, name)(None, norm=FrozenBatchNorm, dtype=jnp.float64).backbone


def faster_rcnn_parts(name):
    """Network, task, name map, and a function from variables and images to features and outputs of both heads."""
    network = faster_rcnn_fpn(backbone(name), CLASSES)
    task = faster_rcnn(network, rpn=RPN_SETTINGS, roi_heads=ROI_SETTINGS, dtype=jnp.float64)
    boxes = jnp.asarray([own[:2] for own in BOXES], jnp.float64)

    def outputs(variables, pixels):
        maps, regions = network.apply(variables, pixels, train=False, method="propose")
        scores = network.apply(variables, maps, boxes, train=False, method="classify")
        logits, offsets = (jnp.concatenate(x, 1) for x in by_level(regions))
        return {**_maps(maps), "logits": logits[..., 0], "offsets": offsets, "scores": scores[0], "shifts": scores[1]}

    return task, torchvision_detection.faster_rcnn_sources, outputs


def mask_rcnn_parts(name):
    """As `faster_rcnn_parts`."""
    network = with_mask_head(faster_rcnn_fpn(backbone(name), CLASSES))
    settings = {"rpn": RPN_SETTINGS, "roi_heads": ROI_SETTINGS, "dtype": jnp.float64}
    task = mask_rcnn(network, geometry="torchvision", **settings)
    boxes = jnp.asarray([own[:2] for own in BOXES], jnp.float64)

    def outputs(variables, pixels):
        maps, _ = network.apply(variables, pixels, train=False, method="propose")
        return {"masks": network.apply(variables, maps, boxes, train=False, method="segment")}

    return task, torchvision_detection.mask_rcnn_sources, outputs


def retinanet_parts(name):
    """As `faster_rcnn_parts`."""
    network = retinanet_fpn(backbone(name), CLASSES)
    task = retinanet(network, pre_nms_top_k=200, dtype=jnp.float64)

    def outputs(variables, pixels):
        logits, offsets = (jnp.concatenate(x, 1) for x in by_level(network.apply(variables, pixels, train=False)))
        maps = network.bind(variables).features(pixels, train=False)
        return {**_maps(maps), "logits": logits, "offsets": offsets}

    return task, torchvision_detection.retinanet_sources, outputs


PARTS = {"faster_rcnn": faster_rcnn_parts, "mask_rcnn": mask_rcnn_parts, "retinanet": retinanet_parts}


def _maps(maps):
    return {f"map{n}": x for n, x in enumerate(maps)}


def figures(detector, name, shapes):
    """Ours: features, outputs, every loss, gradients by torchvision's names, detections."""
    task, sources_of, outputs = PARTS[detector](name)
    given = batch()
    spec = jax.eval_shape(task.init, jax.random.key(0), given)
    sources = sources_of(spec)
    variables = strict.load(sources, weights_of(shapes), spec).variables
    normalised = (given.image - jnp.asarray(_mean()).reshape(1, 1, 1, 3)) / jnp.asarray(_std()).reshape(1, 1, 1, 3)

    def everything(params, rest):
        def loss(params):
            value, out = task.loss({**rest, "params": params}, given, jax.random.key(KEY))
            return value, out.metrics

        own = {**rest, "params": params}
        return outputs(own, normalised), jax.value_and_grad(loss, has_aux=True)(params), task.predict(own, given)

    params, rest = variables["params"], {"batch_stats": variables["batch_stats"]}
    compiled = jax.jit(everything).lower(params, rest).compile(UNOPTIMISED)
    found, ((_, losses), gradient), boxes = jax.device_get(compiled(params, rest))
    flat = {("params", *(k.key for k in path)): x for path, x in jax.tree_util.tree_leaves_with_path(gradient)}
    return {
        **found,
        "losses": {theirs: float(losses[ours]) for ours, theirs in LOSSES[detector].items()},
        "gradients": {sources[path].name: sources[path].convert.back(np.asarray(x)) for path, x in flat.items()},
        "detections": [
            (boxes.boxes[i][boxes.valid[i]], boxes.labels[i][boxes.valid[i]], boxes.scores[i][boxes.valid[i]])
            for i in range(2)
        ],
        "predicted": boxes,
    }


def _mean():
    return 255 * np.array([0.485, 0.456, 0.406])


def _std():
    return 255 * np.array([0.229, 0.224, 0.225])


def priorities(count_anchors, proposals, rows):
    """The random numbers with which our task draws: of the anchors of each image, and of its regions."""
    keys = jax.random.split(jax.random.key(KEY), 4)
    draw = lambda key, n: [np.asarray(jax.random.uniform(k, (n,))) for k in jax.random.split(key, 2)]
    return draw(keys[0], count_anchors), draw(keys[1], proposals + rows)


def model_torch(detector, name):
    """torchvision's, its backbone's statistics frozen, all of it trained, in float64."""
    from torchvision.models.detection import FasterRCNN, MaskRCNN, RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.models.detection.retinanet import _default_anchorgen
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    size = {"min_size": HEIGHT, "max_size": WIDTH}
    make = partial(resnet_fpn_backbone, backbone_name=name, weights=None, trainable_layers=5)
    if detector == "retinanet":
        features = make(returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
        generator = _default_anchorgen()
        assert isinstance(generator, AnchorGenerator)
        return RetinaNet(features, CLASSES, topk_candidates=200, **size).double()
    return {"faster_rcnn": FasterRCNN, "mask_rcnn": MaskRCNN}[detector](
        make(),
        CLASSES + 1,
        rpn_pre_nms_top_n_train=RPN_SETTINGS.pre_nms_top_k[0],
        rpn_pre_nms_top_n_test=RPN_SETTINGS.pre_nms_top_k[1],
        rpn_post_nms_top_n_train=RPN_SETTINGS.post_nms_top_k[0],
        rpn_post_nms_top_n_test=RPN_SETTINGS.post_nms_top_k[1],
        rpn_batch_size_per_image=RPN_SETTINGS.samples_per_image,
        box_batch_size_per_image=ROI_SETTINGS.samples_per_image,
        **size,
    ).double()


def inject_torch(model):
    """Lets both samplers draw with our random numbers."""
    import torch

    def sampler(settings, numbers):
        def draw(matched):
            chosen = []
            for i, labels in enumerate(matched):
                own = numbers(i, len(labels))
                positive, negative = np.flatnonzero(labels.numpy() >= 1), np.flatnonzero(labels.numpy() == 0)
                wanted = min(len(positive), int(settings.samples_per_image * settings.positive_fraction))
                picks = []
                for among, count in ((positive, wanted), (negative, settings.samples_per_image - wanted)):
                    mask = torch.zeros(len(labels), dtype=torch.uint8)
                    mask[torch.from_numpy(among[np.argsort(-own[among], kind="stable")[:count]])] = 1
                    picks.append(mask)
                chosen.append(picks)
            return [p for p, _ in chosen], [n for _, n in chosen]

        return draw

    rows, width = batch().target.boxes.shape[1], RPN_SETTINGS.post_nms_top_k[0]
    anchors = lambda i, n: priorities(n, width, rows)[0][i]

    def regions(i, n):
        own, objects = priorities(1, width, rows)[1][i], len(BOXES[i])
        return np.concatenate([own[: n - objects], own[width : width + objects]])

    assign = model.rpn.assign_targets_to_anchors

    def in_double(*given):
        labels, boxes = assign(*given)
        return [x.double() for x in labels], boxes

    model.rpn.assign_targets_to_anchors = in_double  # labels in float32 would round the loss
    model.rpn.fg_bg_sampler = sampler(RPN_SETTINGS, anchors)
    model.roi_heads.fg_bg_sampler = sampler(ROI_SETTINGS, regions)


def figures_torch(detector, name):
    """torchvision's, and the shapes of its weights."""
    import torch

    model = model_torch(detector, name)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.from_numpy(np.asarray(x)) for name, x in weights_of(shapes).items()})
    pixels = [torch.from_numpy(x.transpose(2, 0, 1) / 255) for x in images()]
    shift = int(detector != "retinanet")
    targets = [
        {
            "boxes": torch.tensor(boxes, dtype=torch.float64),
            "labels": torch.tensor(labels) + shift,
            "masks": torch.from_numpy(masks.astype(np.uint8)),
        }
        for boxes, labels, masks in zip(BOXES, LABELS, masks_of(), strict=True)
    ]
    if detector != "retinanet":
        inject_torch(model)
    losses = model.train()(pixels, targets)
    sum(losses.values()).backward()
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    with torch.no_grad():
        found = model.eval()(pixels)
        outputs = _outputs_torch(detector, model, pixels)
    return shapes, {
        **{name: x.numpy() for name, x in outputs.items()},
        "losses": {name: losses[name].item() for name in LOSSES[detector].values()},
        "gradients": gradients,
        "detections": [
            (each["boxes"].numpy(), each["labels"].numpy() - shift, each["scores"].numpy()) for each in found
        ],
        "predicted": found,
    }


def _outputs_torch(detector, model, pixels):
    """Maps and outputs of the heads, laid out as ours."""
    import torch
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    given, _ = model.transform(pixels)
    maps = model.backbone(given.tensors)
    kept = {f"map{n}": x.permute(0, 2, 3, 1) for n, x in enumerate(maps.values())}
    if detector == "retinanet":
        outputs = model.head(list(maps.values()))
        return {**kept, "logits": outputs["cls_logits"], "offsets": outputs["bbox_regression"]}
    boxes = [torch.tensor(own[:2], dtype=torch.float64) for own in BOXES]
    if detector == "mask_rcnn":
        pooled = model.roi_heads.mask_head(model.roi_heads.mask_roi_pool(maps, boxes, given.image_sizes))
        masks = model.roi_heads.mask_predictor(pooled).permute(0, 2, 3, 1)
        return {"masks": masks.reshape(2, 2, *masks.shape[1:])}
    logits, offsets = concat_box_prediction_layers(*model.rpn.head(list(maps.values())))
    pooled = model.roi_heads.box_head(model.roi_heads.box_roi_pool(maps, boxes, given.image_sizes))
    scores, shifts = model.roi_heads.box_predictor(pooled)
    return {
        **kept,
        "logits": logits.reshape(2, -1),
        "offsets": offsets.reshape(2, -1, 4),
        "scores": scores.reshape(2, 2, -1),
        "shifts": shifts.reshape(2, 2, -1, 4),
    }


NOT_OUTPUTS = ("losses", "gradients", "detections", "predicted")


def errors_of(ours, theirs):
    """The largest errors: of outputs over their largest value, of losses by value, of gradients by norm, of detections."""
    arrays = [name for name in theirs if name not in NOT_OUTPUTS]
    errors = {name: np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max() for name in arrays}
    errors |= {name: abs(ours["losses"][name] - value) / abs(value) for name, value in theirs["losses"].items()}
    largest = max(np.linalg.norm(x) for x in theirs["gradients"].values())
    assert set(ours["gradients"]) == set(theirs["gradients"])
    errors["gradient"] = max(
        np.linalg.norm(ours["gradients"][name] - x) / max(np.linalg.norm(x), 1e-6 * largest)
        for name, x in theirs["gradients"].items()
    )
    for (boxes, labels, scores), (b, l, s) in zip(ours["detections"], theirs["detections"], strict=True):
        np.testing.assert_array_equal(labels, l)
        errors["boxes"] = max(errors.get("boxes", 0), np.abs(boxes - b).max())
        errors["detection scores"] = max(errors.get("detection scores", 0), np.abs(scores - s).max())
    return errors


def golden_of(shapes, found):
    """What is kept of figures: small arrays."""
    arrays = [name for name in found if name not in NOT_OUTPUTS]
    best = [np.concatenate([b[:20], l[:20, None], s[:20, None]], 1) for b, l, s in found["detections"]]
    return {
        "shapes": np.array([" ".join([name, *map(str, shape)]) for name, shape in sorted(shapes.items())]),
        "outputs": summary({name: found[name] for name in arrays}),
        "losses": np.array([value for _, value in sorted(found["losses"].items())]),
        "gradients": summary(found["gradients"]),
        "detections": np.stack(best),
        "counts": np.array([len(b) for b, _, _ in found["detections"]]),
    }


def assert_same(found, expected):
    """Our golden figures are those of torchvision."""
    norms = expected["outputs"][:, :1]
    np.testing.assert_allclose(found["outputs"] / norms, expected["outputs"] / norms, rtol=0, atol=1e-7)
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=1e-7)
    norms = np.maximum(expected["gradients"][:, :1], 1e-6 * expected["gradients"][:, :1].max())
    np.testing.assert_allclose(found["gradients"] / norms, expected["gradients"] / norms, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found["counts"], expected["counts"])
    np.testing.assert_allclose(found["detections"], expected["detections"], rtol=1e-6, atol=1e-6)
