from bench.chat.dialogues import DIALOGUES

TITLE = "Chat"
PARTS = (DIALOGUES,)
