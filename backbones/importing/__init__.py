"""Networks from elsewhere: torchvision, MSRA's and Oxford's Caffe models, akamaster's CIFAR networks."""
