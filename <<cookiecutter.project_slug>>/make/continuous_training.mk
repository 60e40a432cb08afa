# Continuous training: the steps as a pipeline, and the gate. Included by the Makefile.
.PHONY: pipeline retrain drift materialize lineage reproduce rollback

pipeline: | $(BIN)/python ## run what has changed: extract, validate, prepare, train, evaluate
	@$(STEP) pipeline

retrain: | $(BIN)/python ## if a trigger fires (DEMAND=1: surely): pipeline, gate, promotion or refusal
	@$(STEP) retrain $(if $(DEMAND),--demand)

drift: | $(BIN)/python ## compare each batch with the rows that the champion was fitted on
	@$(STEP) drift

materialize: | $(BIN)/python ## bring the online feature store up to date with all batches
	@$(STEP) materialize

lineage: | $(BIN)/python ## print what VERSION=champion was made of, down to the raw files
	@$(STEP) lineage $(if $(VERSION),--version $(VERSION))

reproduce: | $(BIN)/python ## make VERSION=champion again in a clean folder, and compare
	@$(STEP) reproduce $(if $(VERSION),--version $(VERSION))

rollback: | $(BIN)/python ## make the champion before this one the champion again
	@$(STEP) rollback
