"""ImageNet's thousand classes, in the order in which torchvision, timm and Keras number them."""

from importlib.resources import files


def classes() -> tuple[str, ...]:
    """The names, each one different: the first word of the class's WordNet 3.0 synset; classes are sorted by WordNet id."""
    text = (files("jaxvision.pretrained") / "imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(line.partition(" ")[2] for line in text.splitlines())
