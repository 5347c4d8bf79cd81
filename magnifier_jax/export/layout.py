"""What an exported folder consists of."""

ONNX_FILE, STABLEHLO_FILE = "model.onnx", "model.stablehlo"
DESCRIPTION_FILE, CARD_FILE = "model.json", "README.md"
NETWORK_FILES = {"onnx": ONNX_FILE, "stablehlo": STABLEHLO_FILE}  # by format
FILES = (*NETWORK_FILES.values(), DESCRIPTION_FILE, CARD_FILE)

FORMAT, VERSION = "magnifier_jax network", 1  # as model.json says them
METADATA_KEY = "magnifier_jax"  # under which an ONNX file has the contents of model.json
