"""A hosted space of Pellucid's page: `python app.py`, or push this folder to a Gradio space."""

import os

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import pellucid
from pellucid.app import Limits, serve

# more models: name them here, e.g. "my model": pellucid.load("owner/name")
MODELS = {"demo": pellucid.load(pellucid.DEMO)}

if __name__ == "__main__":
    serve(MODELS, host="0.0.0.0", port=7860, limits=Limits(tokens=128, queue=32), demo="demo")
