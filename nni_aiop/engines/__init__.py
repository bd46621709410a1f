"""The one folder of the core that knows NNI and Optuna: spaces, samplers and engines of each."""
