"""Prompts that are answered in a form: templates from files, verdicts, and how sure they are."""
