"""From a trained model to a smaller one: pruning, UMEC, AFM, each with its command beside it."""
