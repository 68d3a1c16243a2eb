"""Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): its files, its classes, and groups of these."""

import numpy as np

from jaxcls.data.datasets import idx_images

CLASS_NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

IMAGES = idx_images.IdxImages(
    name="fashion_mnist",
    class_names=CLASS_NAMES,
    sha256={
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    debian=("dataset-fashion-mnist", "/usr/share/datasets/fashion-mnist"),
    torchvision="FashionMNIST",
    tfds="fashion_mnist",
    sample="fashion_mnist",
)

GROUPS = ("tops", "trousers", "dresses", "footwear", "bags")
# The index of each class's group.
GROUP_OF_ARTICLE = np.array([0, 1, 0, 2, 0, 3, 0, 3, 4, 3], np.int32)
