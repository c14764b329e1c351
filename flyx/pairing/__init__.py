"""How two ends that share a code prove it to each other, before a name, a size or a byte is told.

exchange.py is the state machine, messages.py its wire grammar, words.py what codes are made of.
"""
