"""torchvision's VGG16 for detectors whose head has its dense layers: Fast R-CNN, R-CNN and the paper's Faster R-CNN."""

from jaxvision.pretrained.strict import Path, Source
from jaxvision.pretrained.torchvision import vgg_sources
from jaxvision.types import Variables


def vgg16_sources(variables: Variables) -> dict[Path, Source]:
    """The name map of the backbone and the two dense layers of the box head from torchvision's VGG16; nothing for the rest.

    `classifier.6` of the file is left over.
    """
    params = variables["params"]
    dense = {name: params["box_head"][name] for name in ("dense1", "dense2")}
    found = vgg_sources({"params": {"backbone": params["features"]["backbone"], **dense}})
    rooms = {"backbone": "features", "dense1": "box_head", "dense2": "box_head"}
    return {("params", rooms[path[1]], *path[1:]): source for path, source in found.items()}
