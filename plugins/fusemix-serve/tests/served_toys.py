"""The encoders of the models that tests serve."""

import toys

ENCODERS = {
    "image": f"{toys.__file__}:ToyImage",
    "text": f"{toys.__file__}:ToyText",
    "audio": f"{toys.__file__}:ToySound",
}
