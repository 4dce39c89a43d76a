"""The command line: one module for each command, nothing imported before it is needed."""
