"""Where models and datasets are downloaded from and uploaded to.

``martlet_hub.huggingface``  Hugging Face, scheme ``hf``
``martlet_hub.modelscope``   ModelScope, scheme ``ms``
"""
