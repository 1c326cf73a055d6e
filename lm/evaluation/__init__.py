"""How well a model predicts text: windows of documents, one pass of the model, perplexity."""
