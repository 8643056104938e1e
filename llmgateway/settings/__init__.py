"""All settings, from the command line, the environment and the YAML file, as one frozen value."""

from llmgateway.settings.bad_settings import BadSettings
from llmgateway.settings.declared import SETTINGS, Setting, settings_table
from llmgateway.settings.environment import of_this_process
from llmgateway.settings.first_start import generate_secrets, with_secrets
from llmgateway.settings.gateway_file import GatewayFile, ScopedLimits, StoreTimeouts, read_file
from llmgateway.settings.tree import DEFAULT_CONFIG, Settings
from llmgateway.settings.watch import ConfigWatch

__all__ = [
    "DEFAULT_CONFIG",
    "SETTINGS",
    "BadSettings",
    "ConfigWatch",
    "GatewayFile",
    "ScopedLimits",
    "Setting",
    "Settings",
    "StoreTimeouts",
    "generate_secrets",
    "of_this_process",
    "read_file",
    "settings_table",
    "with_secrets",
]
