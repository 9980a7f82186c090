"""Stock models and data sets: `zoo` has the networks that ship with pcmc, `datasets` reads MNIST and CIFAR.

This room imports none of the others.
"""
