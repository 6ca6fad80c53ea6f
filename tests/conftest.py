"""What all tests share: hypothesis judges behaviour here, never how busy the machine is."""

from hypothesis import settings

settings.register_profile("etcdtw", deadline=None)
settings.load_profile("etcdtw")
