"""Programs that run one WebRTC stack each, told what to do on standard input; see agent.py."""
