"""What the application answers: clients, by WebSocket; REST for rooms; the page; its operator's questions."""
