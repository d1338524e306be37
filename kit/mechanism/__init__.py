"""Deep learning written out by hand, from one perceptron to `fine_tune`, one idea in each file (a rung of a ladder).

It imports torch and the standard library and nothing else of kit; of kit only `kit.explain` imports it. Each file can
be read from top to bottom and run; `python -m kit.mechanism` lists them in order.
"""
