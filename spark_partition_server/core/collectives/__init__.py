"""The algorithms of collectives, as schedules: generators that say what a rank sends and receives, step by step."""
