"""Who comes in, and at what price: decided from headers alone, before a picture is decoded."""
