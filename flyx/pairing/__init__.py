"""How two ends that share a code prove it to each other, before a name, a size or a byte is sent.

exchange.py is the state machine, messages.py its wire grammar, cpace.py the key exchange in it, keys.py what
follows from that, tries.py what strangers may cost, words.py what codes are made of.
"""
