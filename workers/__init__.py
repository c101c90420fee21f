"""The hands: the only code that touches other machines. Orders come from rows; `services.report` hears the rest."""
