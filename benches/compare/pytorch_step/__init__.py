"""A reflection training step in PyTorch, diffusers, transformers and peft, as one would write it from the paper."""
