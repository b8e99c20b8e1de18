"""Batch inference: question files in, one file of answers out, whatever is killed on the way.

Knows files, the order of work and who does which part of it. Knows no terminal and no model: it is given
a `ChatModel` and a template, and tells its caller what has happened.
"""

from medchat.batch.questions import InvalidQuestion, Question, QuestionFile, read_questions

__all__ = ["InvalidQuestion", "Question", "QuestionFile", "read_questions"]
