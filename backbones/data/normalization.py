"""Mean and deviation of ImageNet per channel (R, G, B), of pixel values in 0..255, as in torchvision."""

IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)
