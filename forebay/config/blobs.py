"""The settings of the place where pictures are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from forebay.config.folders import FolderSettings
from forebay.queue.blob_store import BlobAddress, parse_blob_address
from forebay.queue.blobs_s3 import Bucket


class BlobSettings(FolderSettings):
    """A folder, the queue's server, or a bucket."""

    blob_store: str = Field(
        "",
        description="Where pictures are kept: a folder, `redis` (the queue's server), or "
        "`s3://BUCKET/PREFIX`; empty: a folder in `data_dir`.",
    )
    blob_ttl_s: int = Field(
        86_400, ge=600, description="How long a picture is kept after the last task needed it."
    )
    blob_max_bytes: int = Field(
        10 * 2**30, ge=2**20, description="Most that a folder of pictures may hold."
    )
    s3_endpoint: str | None = Field(
        None, description="Server of the bucket, where it is not Amazon's: http(s)://HOST:PORT."
    )
    s3_region: str | None = Field(None, description="Region of the bucket.")
    s3_access_key_id: str | None = Field(
        None, description="Key id for the bucket; unset: environment, web identity or instance."
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="Secret of that key.")
    s3_secret_access_key_file: Path | None = Field(None, description="File that holds it.")

    @field_validator("blob_store")
    @classmethod
    def _blob_address(cls, value: str) -> str:
        if value:
            parse_blob_address(value)
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _s3_server(cls, value: str | None) -> str | None:
        Bucket("pictures", endpoint=value)
        return value

    @model_validator(mode="after")
    def _whole_key(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key are set together or not")
        return self

    @property
    def blob_dir(self) -> Path:
        """Folder of the normalised pictures; empty where they are kept elsewhere."""
        return self.blob_address().folder or self.data_dir / "blobs"

    def blob_address(self) -> BlobAddress:
        """Return where the normalised pictures are kept."""
        address = parse_blob_address(self.blob_store or str(self.data_dir / "blobs"))
        if address.bucket is None:
            return replace(address, max_bytes=self.blob_max_bytes)
        bucket = replace(
            address.bucket,
            endpoint=self.s3_endpoint,
            region=self.s3_region,
            key_id=self.s3_access_key_id,
            secret=self.secret_of("s3_secret_access_key"),
        )
        return replace(address, bucket=bucket)
