"""Configuration: every setting declared once (`settings`), values with units (`units`), one reader (`load`)."""

from tallystick.config.alerts import AlarmSettings, AlertSettings
from tallystick.config.backup import BackupSettings
from tallystick.config.load import load_config
from tallystick.config.privacy import ErasureSettings, PrivacySettings
from tallystick.config.promises import CaseSettings, CatalogSettings, CompletenessSettings, ContractSettings
from tallystick.config.reports import ReportSettings
from tallystick.config.retention import ClassSettings, RetentionSettings
from tallystick.config.reviews import ReviewSettings
from tallystick.config.settings import (
    ArchiveSettings,
    BatchSettings,
    Config,
    ConsoleSettings,
    DataSettings,
    DeliverySettings,
    DestinationSettings,
    IngestLimits,
    JournalSettings,
    KeysSettings,
    LogSettings,
    PipelineSettings,
    QuerySettings,
    SealSettings,
    ServerSettings,
    TenantSettings,
    TlsSettings,
)
from tallystick.config.units import Duration, Size

__all__ = [
    "AlarmSettings",
    "AlertSettings",
    "ArchiveSettings",
    "BackupSettings",
    "BatchSettings",
    "CaseSettings",
    "CatalogSettings",
    "ClassSettings",
    "CompletenessSettings",
    "Config",
    "ConsoleSettings",
    "ContractSettings",
    "DataSettings",
    "DeliverySettings",
    "DestinationSettings",
    "Duration",
    "ErasureSettings",
    "IngestLimits",
    "JournalSettings",
    "KeysSettings",
    "LogSettings",
    "PipelineSettings",
    "PrivacySettings",
    "QuerySettings",
    "ReportSettings",
    "RetentionSettings",
    "ReviewSettings",
    "SealSettings",
    "ServerSettings",
    "Size",
    "TenantSettings",
    "TlsSettings",
    "load_config",
]
