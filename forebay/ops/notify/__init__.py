"""Messages to people: DingTalk, WeCom, Feishu, Slack, e-mail, any webhook."""

from __future__ import annotations
