"""Work on what strangers wrote (templates, grammars) in a process that may be ended, or die, without harm."""
