"""What users and roles refuse, named by the rule that was broken.

The texts clients see stand in `rpc.errors`; the one that etcd lets through untranslated is here.
"""

from __future__ import annotations


class AuthError(Exception):
    """A request that users and roles do not allow.  Nothing was changed."""


class RootUserMissingError(AuthError):
    """There is no user ``root``, without whom nobody could manage users and roles."""


class RootRoleMissingError(AuthError):
    """The user ``root`` does not have the role ``root``."""


class UserExistsError(AuthError):
    """A user of this name exists."""


class UserNameEmptyError(AuthError):
    """A user without a name; also what is asked by nobody where a user is needed."""


class UserNotFoundError(AuthError):
    """No user has this name."""


class RoleExistsError(AuthError):
    """A role of this name exists."""


class RoleNotFoundError(AuthError):
    """No role has this name."""


class RoleNameEmptyError(AuthError):
    """A role without a name."""


class PermissionMissingError(AuthError):
    """A grant that names no permission."""


class PermissionDeniedError(AuthError):
    """The user may not do this."""


class RoleNotGrantedError(AuthError):
    """The user does not have the role that is to be taken from him."""


class PermissionNotGrantedError(AuthError):
    """The role has no permission on exactly this range."""


class AuthFailedError(AuthError):
    """Unknown user, or not his password."""


class NoPasswordUserError(AuthError):
    """A password was given for a user without one; or it was proposed in no form that is known."""

    def __init__(self) -> None:
        super().__init__("auth: authentication failed, password was given for no password user")


class AuthNotEnabledError(AuthError):
    """Users and roles are switched off."""


class VerifyOnlyError(AuthError):
    """A token was asked for of a member that has only the key to verify them."""

    def __init__(self) -> None:
        super().__init__("auth: token signing attempted with verify-only key")


class InvalidTokenError(AuthError):
    """Nobody was given this token, or it is over."""


class InvalidManagementError(AuthError):
    """A change after which nobody could manage users and roles, or a range that is none."""


class OldRevisionError(AuthError):
    """Users and roles have changed since the user of the request was established."""
