"""Change a model by training it: objectives, reducers, optimizers, selections, recipes."""
