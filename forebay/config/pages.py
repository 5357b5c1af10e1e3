"""The settings of the pages that people look at."""

from __future__ import annotations

from pydantic import Field

from forebay.config.group import SettingsGroup


class PageSettings(SettingsGroup):
    """On which ports besides the API's own a page is met."""

    playground_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A second port for the playground; the whole API answers there too.",
    )

    console_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="A second port for the console; the whole API answers there too.",
    )

    def page_ports(self) -> dict[str, str]:
        """Return the settings of such ports that are set -> the path that is met there at `/`."""
        pages = {"playground_port": "/", "console_port": "/console"}
        return {name: path for name, path in pages.items() if getattr(self, name) is not None}
