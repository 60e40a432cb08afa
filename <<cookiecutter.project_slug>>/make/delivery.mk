# Delivery: what CI and CD run, and the service. Included by the Makefile.
.PHONY: types secrets audit sbom build image deploy service canary rehearse monitor
PINS := requirements/service.txt # what runs in production
AUDIT ?= # options of pip-audit, such as another source of advisories

types: | $(BIN)/mypy ## check the types
	@$(BIN)/mypy

secrets: | $(BIN)/detect-secrets-hook ## look for secrets in all files
	@git rev-parse HEAD >/dev/null && git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --no-verify \
	  --exclude-files '^requirements/|^.cookiecutter.yaml$$'

audit: | $(BIN)/pip-audit ## look for known vulnerabilities of what the image holds (network)
	@$(BIN)/pip-audit --strict --disable-pip --progress-spinner off -r $(PINS) $(AUDIT)

sbom: | $(BIN)/cyclonedx-py ## list what the image holds in reports/sbom.json (CycloneDX)
	@mkdir -p reports && $(BIN)/cyclonedx-py requirements $(PINS) -o reports/sbom.json

build: | $(BIN)/python ## build a release of the commit for the target local, print its digest
	@$(STEP) build

image: ## build the container image of the commit (IMAGE=name:tag)
	@docker build --build-arg COMMIT=$$(git rev-parse HEAD) -t $(or $(IMAGE),<< cookiecutter.project_slug >>) .

deploy: | $(BIN)/python ## roll out in ENV=dev, check, go back on failure (DIGEST=, VERSION=; STOP=1)
	@$(STEP) deploy --env $(or $(ENV),dev) $(if $(DIGEST),--image $(DIGEST)) \
	  $(if $(VERSION),--version $(VERSION)) $(if $(STOP),--stop)

service: | $(BIN)/python ## answer over HTTP with the model of ENV=dev (PORT=8080)
	@$(STEP) service --env $(or $(ENV),dev) $(if $(PORT),--port $(PORT))

canary: | $(BIN)/python ## let VERSION=champion answer 5, 25, 100 % in ENV=production (SHARE=, SHADOW=1, STOP=1)
	@$(STEP) canary --env $(or $(ENV),production) $(if $(VERSION),--version $(VERSION)) \
	  $(if $(SHARE),--share $(SHARE)) $(if $(SHADOW),--shadow) $(if $(STOP),--stop)

rehearse: | $(BIN)/python ## go through the whole loop, from commit to canary, in a copy of the project
	@$(BIN)/python tests/delivery/rehearse.py

monitor: | $(BIN)/python ## live metrics, drift, alerts of ENV=production: a dashboard (RETRAIN=1)
	@$(STEP) monitor --env $(or $(ENV),production) $(if $(RETRAIN),--retrain)
