"""The network in six operations, and how a Hugging Face model is opened as one."""
