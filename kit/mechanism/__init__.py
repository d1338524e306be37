"""The mechanism: deep learning from one perceptron to `fine_tune`, by hand, a ladder of one idea a file.

It imports torch and the standard library, nothing else of kit, and nothing of kit imports it. Each rung can be read
from top to bottom and run: `python -m kit.mechanism` prints the ladder.
"""
