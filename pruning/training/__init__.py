"""Training: fine-tuning, distillation, BatchNorm recalibration, rewinding and controls of
lottery tickets.
"""
