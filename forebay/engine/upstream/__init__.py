"""An engine that is a server elsewhere: any that speaks the OpenAI chat API.

The one part of the engine that knows HTTP, and in it ``transport`` alone; no torch is imported.
"""
