# Continuous training: the steps as a pipeline, and the gate. Included by the Makefile.
.PHONY: pipeline retrain rollback

pipeline: | $(BIN)/python ## run what has changed: extract, validate, prepare, train, evaluate
	@$(STEP) pipeline

retrain: | $(BIN)/python ## pipeline, then the gate: the challenger becomes champion, or is refused
	@$(STEP) retrain

rollback: | $(BIN)/python ## make the champion before this one the champion again
	@$(STEP) rollback
