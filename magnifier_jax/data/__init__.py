"""Input: TFDS builders, identity sampling, augmentation, semantic occlusion, pipelines."""
