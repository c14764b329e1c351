"""What the application answers: WebSockets of clients, REST for rooms, and the questions of its operator."""
