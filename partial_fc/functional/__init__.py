"""Pure maths: tensors in, tensors out. No torch.distributed, no nn.Module, no I/O, no state."""
