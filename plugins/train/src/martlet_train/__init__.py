"""Training: the core loop, pre-training and supervised fine-tuning."""
