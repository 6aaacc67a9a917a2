"""The method: search, preference pairs, the loss, reranking, episodes. No model library, no parameters, no disk."""
