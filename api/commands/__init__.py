"""What the commands share: reading what a user names (`inputs`), and writing it down for a person
(`text`).
"""
