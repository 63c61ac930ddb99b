"""The sensitivity map: which layers can give. `sensitivity.sensitivity` is the way in;
`planning` needs no torch.
"""
