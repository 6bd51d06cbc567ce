"""Registries: where what is known of daemons is kept, and who may start one."""
